"""HTTP tools that the handlers share: parameters, bodies, responses, problems."""
