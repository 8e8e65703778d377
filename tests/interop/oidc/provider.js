// OpenID providers for the tests, one for each redirect URI that is given: node provider.js REDIRECT_URI…
// Prints the issuers' addresses as one line of JSON. Anybody signs in there with any password; the name is the subject,
// and the e-mail address where it has an @.
import { createServer } from 'node:http';
import { once } from 'node:events';
import Provider from 'oidc-provider';

async function start(redirectURI) {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id: 'buri', client_secret: 'test secret/+', redirect_uris: [redirectURI] }],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'preferred_username'] },
    cookies: { keys: ['one'] },
    findAccount: (_context, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        email: id.includes('@') ? id : undefined,
        email_verified: id.includes('@') ? !id.startsWith('unverified') : undefined,
        name: `Person ${id}`,
        preferred_username: id,
      }),
    }),
  });
  server.on('request', provider.callback());
  return issuer;
}

console.log(JSON.stringify(await Promise.all(process.argv.slice(2).map(start))));
