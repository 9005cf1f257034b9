"""Tuned configs in the form that serving stacks take: settings, bucket files, commands, and what each of them loses."""
