"""The ``banyan`` command; one file or folder per sub-command."""
