"""The ``panjiu`` command."""
