"""The network: an encoder, a bottleneck and a decoder over the trace, and four heads."""
