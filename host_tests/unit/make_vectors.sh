#!/usr/bin/env bash
# Prints vectors.py: what openssl(1), and nothing of ours, says about keys, tokens and certificates.
# Run it only to add vectors: the tests compare with the committed file.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

b64() { base64 -w0; }
hmac() { openssl dgst -sha256 -mac HMAC -macopt "hexkey:$1" -binary | b64; }
urlencode() { python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1], safe=""))' "$1"; }
quiet() { "$@" 2>/dev/null; }

key=$(printf 'a 64-byte group key, as the service makes them; for tests only..' | xxd -p -c 200)
echo '"""Made by make_vectors.sh with openssl. Test keys only: they guard nothing."""'
echo
echo "GROUP_KEY = \"$(echo "$key" | xxd -r -p | b64)\""
device=$(printf 'contoso-0001' | hmac "$key")
echo "DEVICE_KEY = \"$device\"  # for contoso-0001"
hexdevice=$(echo "$device" | base64 -d | xxd -p -c 200)
dps=$(urlencode '0ne00C0FFEE/registrations/contoso-0001')
echo "DPS_TOKEN = \"SharedAccessSignature sr=$dps&sig=$(urlencode "$(printf '%s\n1900000000' "$dps" | hmac "$hexdevice")")&se=1900000000&skn=registration\""
hub=$(urlencode 'contoso.azure-devices.net/devices/contoso-0001')
echo "HUB_TOKEN = \"SharedAccessSignature sr=$hub&sig=$(urlencode "$(printf '%s\n1900000000' "$hub" | hmac "$hexdevice")")&se=1900000000\""

ca() { # name, issuer or "", extra openssl req options
  quiet openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out "$1.key"
  quiet openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
  printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n' >"$1.ext"
  if [ -z "$2" ]; then
    quiet openssl x509 -req -in "$1.csr" -key "$1.key" -sha384 -days 9000 -extfile "$1.ext" -out "$1.pem"
  else
    quiet openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -sha384 -days 9000 -extfile "$1.ext" -out "$1.pem"
  fi
}
ca root ""
ca intermediate root
ca second intermediate

leaf() { # prefix, genpkey options..., then the CN in $cn and the dates in $from and $to
  name=$1
  shift
  quiet openssl genpkey "$@" -out "$name.key"
  quiet openssl req -new -key "$name.key" -subj "/O=Contoso/CN=$cn" -outform DER -out "$name.csr"
  printf 'extendedKeyUsage=clientAuth\nkeyUsage=critical,digitalSignature\n' >leaf.ext
  mkdir -p ca && : >ca/index && echo 01 >ca/serial
  printf '[ca]\ndefault_ca=d\n[d]\ndatabase=ca/index\nserial=ca/serial\nnew_certs_dir=ca\ndefault_md=sha384\npolicy=p\nunique_subject=no\n[p]\nO=optional\nCN=supplied\n' >ca.cnf
  openssl req -inform DER -in "$name.csr" -out "$name.pem.csr"
  quiet openssl ca -batch -config ca.cnf -cert "${issuer:-intermediate}.pem" -keyfile "${issuer:-intermediate}.key" -in "$name.pem.csr" \
    -startdate "$from" -enddate "$to" -extfile leaf.ext -notext -out "$name.pem"
  echo "${name}_CSR = \"$(b64 <"$name.csr")\""
  echo "${name}_LEAF = \"$(openssl x509 -in "$name.pem" -outform DER | b64)\""
}
from=20260101000000Z to=20451231235959Z cn=contoso-0001
leaf P384 -algorithm EC -pkeyopt ec_paramgen_curve:P-384
leaf P256 -algorithm EC -pkeyopt ec_paramgen_curve:P-256
leaf RSA -algorithm RSA -pkeyopt rsa_keygen_bits:2048
cn=somebody-else leaf OTHER -algorithm EC -pkeyopt ec_paramgen_curve:P-384
issuer=second leaf DEEP -algorithm EC -pkeyopt ec_paramgen_curve:P-256
from=19990101000000Z to=20600101000000Z cn=contoso-0001
leaf LONG -algorithm EC -pkeyopt ec_paramgen_curve:P-256
echo "INTERMEDIATE = \"$(openssl x509 -in intermediate.pem -outform DER | b64)\""
echo "SECOND = \"$(openssl x509 -in second.pem -outform DER | b64)\""
echo "ROOT = \"$(openssl x509 -in root.pem -outform DER | b64)\""
for name in P384 P256 RSA LONG; do
  # The BIT STRING of the public key, without the byte that counts unused bits, ends the SubjectPublicKeyInfo.
  echo "${name}_KEY_END = \"$(openssl x509 -in $name.pem -noout -pubkey | openssl pkey -pubin -outform DER | tail -c 64 | b64)\""
done
