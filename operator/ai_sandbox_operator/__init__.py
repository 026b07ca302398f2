"""AI Sandbox operator: private, closed-by-default LLM sandboxes on Linode Kubernetes Engine."""

__version__ = "0.1.0"
