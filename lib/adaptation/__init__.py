"""Study heads: refitted to a study's labels on top of the published weights."""
