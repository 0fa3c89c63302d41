"""Messages, tools and schemas → the body of one request. Knows nothing of HTTP or answers."""
