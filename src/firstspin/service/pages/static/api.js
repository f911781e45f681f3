// Questions to the service: the same public endpoints that an app uses.

class Refused extends Error {
  constructor(message, temporary) {
    super(message);
    this.temporary = temporary;
  }
}

/** The answer's JSON, and the time in milliseconds that the service says it took. */
export async function ask(path, registration) {
  const { body, headers } = await read(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(registration) });
  const took = /dur=([\d.]+)/.exec(headers.get("server-timing") ?? "");
  return { body, took: took ? Number(took[1]) : null };
}

async function read(path, options) {
  let reply, body;
  try {
    reply = await fetch(path, options);
    body = await reply.json();
  } catch {
    throw new Refused("The service does not answer. The page tries again every two seconds.", true);
  }
  if (!reply.ok) throw new Refused(`The service refused: ${body.error.message}.`, reply.status === 503 || reply.status === 429);
  return { body, headers: reply.headers };
}

let known = { model: null };

/** The stations by id and the genres' places on the colour wheel, of the model that gave this answer. */
export async function catalogue(answer) {
  if (known.model === answer.model) return known;
  const { model, stations } = (await read(`/stations.json?model=${encodeURIComponent(answer.model)}`)).body;
  const genres = [...new Set(stations.map(({ genre }) => genre))].sort();
  known = {
    model,
    stations: new Map(stations.map((station) => [station.station_id, station])),
    hues: new Map(genres.map((genre, place) => [genre, (360 * place) / genres.length])),
  };
  return known;
}
