"""The device registry: issuing authorities, their policies, devices of all hubs, and the certificates issued.

Its HTTPS interface is in service/."""
