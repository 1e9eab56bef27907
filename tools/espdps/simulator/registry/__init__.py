"""The device registry: credential policies, devices of all hubs, and the certificates issued under a policy.

Its HTTPS interface is in service/."""
