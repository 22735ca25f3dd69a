"""Points as the network takes them: sampling, error-driven clicks, the encoder."""
