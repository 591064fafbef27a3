"""`bench nightly`: what is executed every night, what became slower, and how that is said."""
