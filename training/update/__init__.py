"""What makes up one update of the weights, apart from the gradient."""
