"""Pages and pictures for people: the study's page, renderings. Adapter."""
