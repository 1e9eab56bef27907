# As much of MicroPython's network as hardware.py uses. CircuitPython joins the Wi-Fi of settings.toml by itself at
# power-on; this is for when that has failed, or has been lost.
import wifi

STA_IF = 0


class WLAN:
    def __init__(self, _interface):
        self.text = "not connected"

    def isconnected(self):
        return wifi.radio.connected

    def active(self, on):
        wifi.radio.enabled = on

    def config(self, _ssid):
        return wifi.radio.ap_info and wifi.radio.ap_info.ssid

    def disconnect(self):
        wifi.radio.stop_station()

    def connect(self, ssid, password):
        try:
            wifi.radio.connect(ssid, password, timeout=20)
        except ConnectionError as e:
            self.text = str(e)

    def status(self):
        return self.text

    def ifconfig(self):
        return (str(wifi.radio.ipv4_address),)
