"""Many runs to statistics, figures, words and one page, read from the folder of a sweep."""
