"""Many runs to statistics, figures, words and one page."""
