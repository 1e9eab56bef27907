// Takes connections to the ports that Microsoft's SDKs have built in to a simulator's, for all of this process.
// It must not touch what goes over them: names and certificates are checked by Node as always.
'use strict';

const net = require('net');

const ports = JSON.parse(process.env.PORTS);
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...words) {
  const given = Array.isArray(words[0]) ? words[0] : words;
  const options = given[0];
  if (options && ports[options.port]) {
    given[0] = { ...options, host: '127.0.0.1', port: ports[options.port] };
  }
  return connect.apply(this, words);
};
