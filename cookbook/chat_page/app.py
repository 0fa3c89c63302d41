"""A chat page for an agent of thinnest.ai. `make chat-page` serves it."""

from contextlib import aclosing

import chainlit as cl

from langchain_thinnest import ChatThinnest, ThinnestError

model = ChatThinnest()  # by the environment: THINNEST_AGENT_ID, THINNEST_API_KEY


class Steps(cl.LangchainCallbackHandler):
    """A step for each tool; none for the model, so that tools stand between its texts."""

    def __init__(self):
        super().__init__(to_ignore=["ChatThinnest"])

    async def on_tool_end(self, output, **kwargs):
        return await super().on_tool_end(output.content, **kwargs)


@cl.on_message
async def answer(question: cl.Message):
    session = {"session_id": cl.context.session.thread_id}  # one for each conversation
    config = {"callbacks": [Steps()], "configurable": session}
    message = None
    try:  # The stop button cancels this task. Chainlit's loop closes no generators by itself.
        async with aclosing(model.astream(question.content, config)) as chunks:
            async for chunk in chunks:
                if message and chunk.additional_kwargs.get("server_tools"):
                    await message.update()
                    message = None  # the text behind a tool stands below its step
                if chunk.text:
                    message = message or cl.Message("")
                    await message.stream_token(chunk.text)
    except ThinnestError as error:
        await cl.ErrorMessage(str(error)).send()
    finally:
        if message:
            await message.update()
