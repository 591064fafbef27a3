"""What every adapter must do, as checks that any adapter can be put through: `bench backend-check NAME`."""
