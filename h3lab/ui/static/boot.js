// What is part of every widget's state, and so as small as can be: it fetches the code of the card, once a page.

const loaded = (globalThis.h3labCode ??= {});
let ready;

export default {
  // Nothing is awaited here: until this has returned, anywidget holds back the very message that brings the code.
  initialize({ model }) {
    const name = model.get("code");
    ready = new Promise((resolve) => {
      const begin = async () => resolve(new (await loaded[name]).Board(model));
      if (loaded[name]) return begin();
      let wait = 500;
      const ask = () => {
        model.send({ type: "code" });
        // The first message may go to a busy cell, before Jupyter has a thread for such messages: ask again.
        timer = setTimeout(ask, (wait = Math.min(2 * wait, 30000)));
      };
      let timer = setTimeout(ask);
      const receive = ({ type, text }) => {
        if (type !== "code") return;
        clearTimeout(timer);
        model.off("msg:custom", receive);
        loaded[name] ??= import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
        begin();
      };
      model.on("msg:custom", receive);
    });
  },
  async render({ el, signal }) {
    const board = await ready, holder = el.appendChild(document.createElement("div"));
    board.mount(holder);
    signal?.addEventListener("abort", () => board.unmount(holder));
  },
};
