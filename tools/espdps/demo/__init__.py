"""The main job from a blank board to telemetry, shown step by step on the simulator and a virtual board.

Nothing is staged here, and no other room may depend on it."""
