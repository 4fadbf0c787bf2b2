"""Who does the work: processes of this machine, Apache Beam, Ray; what they share before, during and after it."""
