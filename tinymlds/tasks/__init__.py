"""The tasks that networks learn: finite-state machines with 9 inputs and 8 outputs."""
