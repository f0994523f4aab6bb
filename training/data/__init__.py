"""Pictures from their hosts, copies among them, and folds without leaks."""
