"""Many runs to tables, figures and one page."""
