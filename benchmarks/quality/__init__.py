"""How good recipes are on labelled imagery: each is trained, tuned and judged by the command that users have."""
