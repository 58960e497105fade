"""Whether load tests are to be believed."""
