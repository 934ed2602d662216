"""Attacks on the filter's RTL alone, beat by beat: what no software on the phone can time so well."""
