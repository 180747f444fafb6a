"""What every backend needs that asks a server over HTTP: pace, retries, keys, answers' form."""
