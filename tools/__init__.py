"""What maintains the project and no user needs."""
