"""The playground: a page in the browser where a corruption is put together by hand, and seen at once."""
