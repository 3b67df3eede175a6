"""The playground: a page in the browser for composing a corruption and seeing the result immediately."""
