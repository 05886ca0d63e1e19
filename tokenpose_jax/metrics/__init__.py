"""What the networks are measured by: one module per benchmark."""
