"""The network: encoder, bottleneck and decoder over the trace, and four heads."""
