"""Sessions on replicas: who runs where, and why. Sans-IO: frozen events in, frozen commands out."""
