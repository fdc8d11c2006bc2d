// Requests to the server. Errors have the server's line as their message, and its status.
const token = document.querySelector('meta[name="token"]').content;

async function asked(path, options) {
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer: start kplm view again");
  }
  let body = {};
  try {
    body = await reply.json();
  } catch {
    body = { error: `the server answered ${reply.status}` };
  }
  if (!reply.ok) throw Object.assign(new Error(body.error), { status: reply.status });
  return body;
}

export function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return asked(`${path}?${new URLSearchParams(given)}`);
}

export function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-Kplm-Token": token };
  return asked(path, { method: "POST", headers, body: JSON.stringify(body) });
}
