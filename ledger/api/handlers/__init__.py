"""The handlers of the HTTP API, one module a resource."""
