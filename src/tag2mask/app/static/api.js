// Requests to the server. The extra header tells it that they come from this page.

const HEADERS = { "X-Tag2mask": "1" };

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: HEADERS });
  } catch {
    throw new ServerError("The page's server does not answer. Is 'tag2mask app' still running?", 0);
  }
  if (answer.status === 204) return null;
  const text = await answer.text();
  let content = null;
  try {
    content = JSON.parse(text);
  } catch {
    content = { error: text };
  }
  if (!answer.ok) throw new ServerError(content.error || `error ${answer.status}`, answer.status);
  return content;
}

const json = (method, path, content) => ask(method, path, JSON.stringify(content));

export const api = {
  page: () => ask("GET", "/api/page"),
  images: () => ask("GET", "/api/images"),
  upload: (file) => ask("POST", `/api/images?name=${encodeURIComponent(file.name)}`, file),
  remove: (id) => ask("DELETE", `/api/images/${id}`),
  mask: (id, settings) => json("POST", `/api/images/${id}/mask`, settings),
  saved: (id) => ask("GET", `/api/images/${id}/saved`),
  save: (id, content) => json("PUT", `/api/images/${id}/saved`, content),
  startDownload: (content) => json("POST", "/api/downloads", content),
  download: (id) => ask("GET", `/api/downloads/${id}`),
  picture: (id, token) => `/api/images/${id}/picture?v=${token}`,
  thumbnail: (id, token) => `/api/images/${id}/thumbnail?v=${token}`,
  file: (id) => `/api/downloads/${id}/file`,
};
