"""The real Envoy on this machine, with the configuration that the operator renders."""
