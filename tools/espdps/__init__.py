"""Host side of esp-dps: device folders, flashing, the simulator and the virtual board behind `esp-dps`."""
