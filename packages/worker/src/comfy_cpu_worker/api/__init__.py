"""The local API: RunPod's queue endpoints, and what a service needs besides."""
