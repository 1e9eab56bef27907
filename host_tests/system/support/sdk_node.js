// A device and a backend by Microsoft's SDKs for Node, unmodified, told what to do on stdin (sdk.py).
// No key may be printed.
'use strict';

const fs = require('fs');
const readline = require('readline');

const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Mqtt: DpsMqtt } = require('azure-iot-provisioning-device-mqtt');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');
const hub = require('azure-iothub');

const say = (item) => process.stdout.write(JSON.stringify(item) + '\n');
const plain = (value) => JSON.parse(JSON.stringify(value === undefined ? null : value));

let device, twin, registry, service, dps;

// A certificate and its key out of one PEM file.
const pair = (pem) => {
  const text = fs.readFileSync(pem, 'utf8');
  return { cert: text, key: text };
};

const steps = {
  async register({ host, id, scope, key, pem, payload }) {
    const security = pem ? new X509Security(id, pair(pem)) : new SymmetricKeySecurityClient(id, key);
    const client = ProvisioningDeviceClient.create(host, scope, new DpsMqtt(), security);
    if (payload) client.setProvisioningPayload(payload);
    return client.register();
  },

  async connect({ host, id, key, pem }) {
    const proof = pem ? 'x509=true' : `SharedAccessKey=${key}`;
    device = Client.fromConnectionString(`HostName=${host};DeviceId=${id};${proof}`, Mqtt);
    if (pem) await device.setOptions(pair(pem));
    device.on('error', () => {});
    device.on('disconnect', () => say({ said: 'disconnect' }));
    await device.open();
    device.on('message', (message) => {
      say({ said: 'message', body: message.data.toString(), id: message.messageId,
            properties: message.properties.propertyList });
      device.complete(message, () => {});
    });
    device.onDeviceMethod('echo', (request, response) => response.send(200, { echo: request.payload }, () => {}));
    twin = await device.getTwin();
    twin.on('properties.desired', (patch) => say({ said: 'desired', patch }));
  },

  async send({ body, properties }) {
    const message = new Message(body);
    message.contentType = 'application/json';
    message.contentEncoding = 'utf-8';
    message.messageId = 'm 1';
    for (const [name, value] of Object.entries(properties)) message.properties.add(name, value);
    await device.sendEvent(message);
  },

  report: ({ patch }) => new Promise((done, failed) =>
    twin.properties.reported.update(patch, (error) => (error ? failed(error) : done()))),

  leave: () => device.close(),

  async open({ hub: name, dps: host, policy, key }) {
    const secret = `SharedAccessKeyName=${policy};SharedAccessKey=${key}`;
    registry = hub.Registry.fromConnectionString(`HostName=${name};${secret}`);
    service = hub.Client.fromConnectionString(`HostName=${name};${secret}`);
    dps = ProvisioningServiceClient.fromConnectionString(`HostName=${host};${secret}`);
  },

  // The hub
  create: async ({ device: body }) => (await registry.create(body)).responseBody,
  update: async ({ device: body }) => (await registry.update(body)).responseBody,
  get: async ({ id }) => (await registry.get(id)).responseBody,
  list: async () => (await registry.list()).responseBody,
  remove: async ({ id }) => { await registry.delete(id); },
  bulk: async ({ devices }) => (await registry.addDevices(devices)).responseBody,
  twin: async ({ id }) => (await registry.getTwin(id)).responseBody,
  update_twin: async ({ id, patch, etag }) => (await registry.updateTwin(id, patch, etag || '*')).responseBody,
  async query({ text, size }) {
    const query = registry.createQuery(text, size);
    const pages = [];
    while (query.hasMoreResults) pages.push((await query.nextAsTwin()).result.map((one) => one.deviceId));
    return pages;
  },
  async call({ id, name, payload }) {
    const parameters = { methodName: name, payload, responseTimeoutInSeconds: 30, connectTimeoutInSeconds: 0 };
    return (await service.invokeDeviceMethod(id, parameters)).result;
  },

  // DPS
  enroll: async ({ body }) => (await dps.createOrUpdateIndividualEnrollment(body)).responseBody,
  enroll_group: async ({ body }) => (await dps.createOrUpdateEnrollmentGroup(body)).responseBody,
  enrollment: async ({ id }) => (await dps.getIndividualEnrollment(id)).responseBody,
  keys: async ({ id }) => (await dps.getIndividualEnrollmentAttestationMechanism(id)).responseBody,
  unenroll: async ({ id, etag }) => { await dps.deleteIndividualEnrollment(id, etag); },
  enrollments: async ({ query }) => (await dps.createIndividualEnrollmentQuery(query, 10).next()).responseBody,
  registrations: async ({ query, group }) =>
    (await dps.createEnrollmentGroupDeviceRegistrationStateQuery(query, group, 10).next()).responseBody,
  registration: async ({ id }) => (await dps.getDeviceRegistrationState(id)).responseBody,
};

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { do: name, ...words } = JSON.parse(line);
    try {
      say({ result: plain(await steps[name](words)) });
    } catch (error) {
      const response = error.response || {};
      say({ error: error.name || error.constructor.name, text: String(error.message), status: response.statusCode || null });
    }
  }
  process.exit(0);
})();
