"""Other people's test suites, with our adapters in the place of theirs."""
