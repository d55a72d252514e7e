"""What a network is: sizes, tensors, initial weights, symmetries."""
