"""The map: a page from which a browser asks the service. It asks what anybody may ask, over HTTP."""
