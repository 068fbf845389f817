/** What the server does once, however often it is asked with the same key: what makes something. */
const made = /\/api\/((agents|deployments|environments|sandboxes|templates|tokens)|sandboxes\/[^/]+\/deploy(ments)?|deployments\/[^/]+\/(retry|rollback)|agents\/[^/]+\/rotate)$/;

/** Whether asking again after a lost answer does not do it twice. */
export function isOnce(method: string, url: string): boolean {
  return method === "POST" && made.test(new URL(url).pathname);
}
