"""Many runs that differ in a few settings, and one table and plot of what became of them."""
