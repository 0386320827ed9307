"""What stands around a flow run: recipe checks, servers, the home folder."""
