"""What is learned: finite-state machines with 9 inputs and 8 outputs."""
