"""Models beside the policy: the judge, an injector that is not the policy, their HTTP client."""
